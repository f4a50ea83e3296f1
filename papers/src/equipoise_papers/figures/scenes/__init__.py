"""Pictures of rendered scenes: what is true of each pixel and, after training, what a network says."""
