"""What leaves the house: weights for other libraries, models for a hub."""
