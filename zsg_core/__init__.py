"""The science: data, prompts, orders and schedules as pure functions that know no cluster."""
