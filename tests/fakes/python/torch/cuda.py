import fake_script

DEVICES = fake_script.SCRIPT.get("devices", [["NVIDIA H200", "11111111-2222-3333-4444-555555555555"]])
current = 0


class Properties:
    def __init__(self, name, uuid):
        self.name = name
        if uuid is not None:
            self.uuid = uuid


def init():
    fake_script.act("init")


def device_count():
    return len(DEVICES)


def set_device(device):
    global current
    current = device


def get_device_properties(device):
    return Properties(*DEVICES[device])


def synchronize(device):
    if fake_script.broken:
        raise RuntimeError(fake_script.broken[-1])
