"""What a sample of the data says about the layers of a network: moments that surgeries go by."""
