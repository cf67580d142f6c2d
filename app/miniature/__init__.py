"""The zoo that ships: base models, LoRAs, experts, and the pipeline that draws."""
