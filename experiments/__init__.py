"""The study: what structured noise does to a CIFAR-10 network."""
