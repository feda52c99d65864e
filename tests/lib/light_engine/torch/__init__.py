"""The names that zsg takes from torch, for one rank on a CPU and for values that are Python's."""


class _Names(type):
    def __getattr__(cls, name):
        return Any

    def __or__(cls, other):
        return cls


class Any(metaclass=_Names):
    """Stands for whatever is only named: a class, a function, a decorator."""

    def __init__(self, *given, **named):
        pass

    def __call__(self, *given, **named):
        return given[0] if given else self


class tensor(list):
    """A vector."""

    def __init__(self, values, device=None):
        super().__init__(values if isinstance(values, list) else [values])

    def tolist(self):
        return list(self)

    def item(self):
        return self[0]


class cuda:
    """There is none."""

    @staticmethod
    def is_available():
        return False


class backends:
    """What kind of processor there is."""

    class cpu:
        """One that is not looked at."""

        @staticmethod
        def get_cpu_capability():
            return "light"


class Generator:
    """One that nobody draws from."""


def get_rng_state():
    return 0


def set_rng_state(state):
    pass


def get_num_threads():
    return 1


def __getattr__(name):
    if name.startswith("__"):
        raise AttributeError(name)
    return Any
