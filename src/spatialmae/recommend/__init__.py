"""Which masking ratio and patch size suit given images: evidence from the closed form, and rules that it calibrates."""
