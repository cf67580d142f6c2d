"""From labelled models to an expert: training sets, choice of layers, fitting and calibration."""
