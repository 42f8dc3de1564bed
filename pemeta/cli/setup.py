"""``pemeta setup-learn2learn``: the installation of learn2learn."""

from __future__ import annotations

import typer


def setup_learn2learn(context: typer.Context) -> None:
    """Install learn2learn, which priming needs.

    It is built from source. Further options go to pip.
    """
    from pemeta.utils.learn2learn_setup import install_learn2learn

    install_learn2learn(context.args)
