"""Policies on images from nothing: first an eye that tells where the block is, then each policy's head on it.

The eye is the image encoder that LeRobot's policies have, trained on scenes drawn on the spot, whose poses
are known. A head is everything else of a policy, trained on what the frozen eye says of demonstrations.
"""
