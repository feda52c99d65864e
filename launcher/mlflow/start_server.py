"""Starts the server of launcher.mlflow.guarded_server: `python -m launcher.mlflow.start_server`.

It imports nothing of weight by itself. Each of the server's processes imports this
module anew before it answers whether it is well, and would be taken for dead while it
imports MLflow.
"""


def main() -> None:
    """Serves until told to end."""
    from launcher.mlflow import guarded_server

    guarded_server.run_server()


if __name__ == "__main__":
    main()
