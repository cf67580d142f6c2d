"""From labelled files to an expert.

``labelled_loras`` and ``labelled_classifiers`` find files and their labels. ``layer_selection`` ranks their layers.
``concept_dataset`` and ``category_dataset`` add labels and targets. A closed form for LoRAs goes over its files twice
(``updates``, ``sketches``) and keeps what it reads in a ``feature_file``; for probes and classifiers ``packing`` reads
the updates of some layers into memory. ``fit`` trains a model on a dataset by an ``expert_config``, and ``build`` makes
a calibrated expert of it. ``take_over`` has an expert read LoRAs of another making.
"""
