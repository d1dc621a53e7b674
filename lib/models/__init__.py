"""Models and LoRA adapters as folders on disk."""
