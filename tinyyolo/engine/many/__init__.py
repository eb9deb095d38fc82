"""Several processes of one run: their devices, and how a run starts them."""
