"""Multi-task actor-critic (thesis, eq. 3.38 to 3.40): soft actor-critic (SAC) with one critic and one policy for all tasks.

α is the critic, ω the policy. The upper objectives are the tasks' soft Bellman residuals, the lower level is the sum of the
policy's losses. A balancer combines the critic's m gradients where one critic alone would follow their sum.
"""
