"""From labelled files to an expert.

``labelled_loras`` and ``labelled_classifiers`` find files and their labels. ``layer_selection`` ranks their layers, and
``packing`` reads the updates of some layers into memory. ``concept_dataset`` and ``category_dataset`` add labels and
targets. ``fit`` trains a model on a dataset by an ``expert_config``, and ``build`` makes a calibrated expert of it.
"""
