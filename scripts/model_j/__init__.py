"""Fetches Model-J and measures encoders on it by the papers' protocols.

Model-J is the dataset of ProbeX (Horwitz et al., CVPR 2025, arXiv 2410.13569); MVProbe (ICML 2026, arXiv 2605.23410)
measures on it too.

The following was read in the official downloader (github.com/eliahuhorwitz/ProbeX, download_datasets.py, with its
README and training scripts) and in the model cards of the repositories.

LoRAs of Stable Diffusion:

- SD_200 and SD_1k are one model repository each, ``ProbeX/Model-J__SD_200`` and ``ProbeX/Model-J__SD_1k``, of about 70
  GB and some 5,000 LoRAs;
- files are ``<split>/model_idx_NNNN/pytorch_lora_weights.safetensors``, beside ``README.md`` and ``training_images/``,
  with the splits of ``labelled_files.SPLITS``;
- each header's metadata have ``imagenet_class_id``, from which the concept's name follows; tensors are
  ``unet.<layer>.lora.down.weight`` and ``….up.weight``;
- the cards that were read name Stable Diffusion 1.3, 1.4 and 1.5 as base models, and rank 16;
- of 128 attention layers in the order of their names, both codes use number 46 as the best, which is ``LAYER``.

Not verified, as no file of it could be opened here: that every file has all 128 layers, their precision, other
metadata, the size of headers, and whether ``val_holdout`` and ``test_holdout`` share concepts (the official code takes
both as one list of candidates, and so does the protocol).

Classifiers (SupViT, DINO, MAE, ResNet; read in the same code, in ``layer_names/`` and in model cards):

- each model is a repository of its own, ``ProbeX/Model-J__<subset>__model_idx_NNNN``, with ``model.safetensors`` as
  transformers writes it;
- the dataset ``ProbeX/Model-J`` lists them by split (``train``, ``val``, ``test``) in the column ``hf_model_id``, with
  a configuration for each subset;
- each header's ``dataset_chosen_targets`` is a Python list of the 50 of CIFAR-100's classes that the model was trained
  on;
- the best layers are numbers 59, 59, 64 and 59 of the names in order, which are those in ``CLASSIFIER_LAYERS``; ProbeX
  reads the weights themselves, trains 500 epochs at a rate of 1e-3 with a decay of 1e-5, and keeps the best on ``val``
  of every 25th epoch.

Not verified: how the dataset's tables are named (any table whose path names the subset and a split is used), and the
exact spelling in today's files.
"""

from typing import Final

REPOSITORIES: Final = {"SD_200": "ProbeX/Model-J__SD_200", "SD_1k": "ProbeX/Model-J__SD_1k"}
CLASSIFIER_LAYERS: Final = {
    "SupViT": "vit.encoder.layer.7.attention.output.dense",
    "DINO": "vit.encoder.layer.7.attention.output.dense",
    "MAE": "vit.encoder.layer.8.attention.attention.value",
    "ResNet": "resnet.encoder.stages.2.layers.19.layer.0.convolution",
}
DATASET: Final = "ProbeX/Model-J"
LAYER: Final = "down_blocks.2.attentions.1.transformer_blocks.0.attn2.to_q"
TEXT_ENCODER: Final = "ViT-L-14-quickgelu/openai"  # the papers' ViT-L/14; as ViT-L-14/openai, open_clip would run it with another activation
