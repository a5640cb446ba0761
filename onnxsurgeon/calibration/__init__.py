"""What a sample of the data says about a network's layers: moments that surgeries go by, and errors measured."""
