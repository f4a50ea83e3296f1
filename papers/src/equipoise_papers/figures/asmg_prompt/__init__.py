"""Black-box prompt tuning end to end (section 4.6.2) where no weights can be downloaded: a small CLIP on real digits."""
