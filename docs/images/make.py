"""Makes the picture of the README from a run of the demo: python docs/images/make.py"""

from __future__ import annotations

from pathlib import Path

import reluflow as rf
from reluflow.report import style
from reluflow.report.figures import banner_figure

HERE = Path(__file__).parent


def main() -> None:
    # The problem of `reluflow demo`.
    result = rf.double_edge(rf.ClusterModel.orthogonal(10, 2000, 0.2), n=200, width=100, seed=0)
    figure = banner_figure(result)
    (HERE / "double_edge.svg").write_text(style.svg(figure), encoding="utf-8")
    (HERE / "double_edge.png").write_bytes(style.png(figure, dpi=160))
    print(result)


if __name__ == "__main__":
    main()
