"""What lies between two models: layer by layer, and in what they compute."""
