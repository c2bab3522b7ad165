"""Lists the commands: python -m experiments."""

COMMANDS = """\
python -m experiments.cifar      trains the network with one regularizer
python -m experiments.study      trains what a plan compares, and writes the report
python -m experiments.report     writes a study's report anew, or compares runs
python -m experiments.benchmark  times the layers, and the training of many networks

Each says the rest with --help."""

if __name__ == "__main__":
    print(COMMANDS)
