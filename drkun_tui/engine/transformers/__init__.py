"""The Transformers engine: safetensors models in sixteen or four bits, on an NVIDIA GPU or the CPU."""
