"""Experts: layer updates -> vectors of the embedding space.

All kinds of experts are here, not only ProbeX's: the closed form that ships (``sketch``), and the learned probes of
ProbeX and MVProbe (``probes``).
"""
