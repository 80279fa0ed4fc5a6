from fake_script import act

act("import torchvision")

__version__ = "0.20.0"
