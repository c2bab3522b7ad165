"""The network, its regularizers, and the compiled steps that train many seeds."""
