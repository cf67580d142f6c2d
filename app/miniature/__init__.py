"""The shipped miniature: base models, LoRAs, experts, a zoo, and the pipeline that draws."""
