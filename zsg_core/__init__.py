"""The science: data, prompts, orders and schedules as pure functions that know no cluster."""

from zsg_core import moved_modules

moved_modules.install()
