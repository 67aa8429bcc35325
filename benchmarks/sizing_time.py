"""How long the whole answer takes, beside what pygam alone needs for the bare fits and predictions.

By hand: .venv/bin/python benchmarks/sizing_time.py [RUNS]

The answer holds more than predictions: support, intervals by size, carried bounds and reasons for every size. The table
says what that costs, in one run, on synthetic eyes.
"""

import statistics
import sys
import time

import pandas as pd


def seconds(work, runs: int) -> float:
    """Median wall time of `work()`, after one run that loads what is loaded once."""
    work()
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def main(runs: int = 3) -> int:
    from pygam import LinearGAM

    import lensnb
    from lensnb.cohort import training_eyes
    from lensnb.features import feature_frame

    eyes = lensnb.synthetic_clinics().of("alder").eyes
    model = lensnb.SizingModel().fit(eyes)
    used = training_eyes(eyes).dropna(subset=model.parts.features)
    X, y = feature_frame(used, model.parts.features).to_numpy(), used["vault_um"].to_numpy()
    many = pd.concat([eyes.dropna(subset=model.parts.features)] * 12, ignore_index=True).head(10_000)
    many_X = feature_frame(many, model.parts.features).to_numpy()
    plain = LinearGAM(n_splines=6).fit(X, y)

    def plain_fits():
        for _ in range(1 + model.config.n_splits):
            LinearGAM(n_splines=6).fit(X, y)

    def plain_predictions(rows):
        return lambda: [plain.predict(rows) for _ in model.config.sizes]

    rows = [
        (f"fit, {len(used)} eyes", lambda: lensnb.SizingModel().fit(eyes), plain_fits),
        ("answer, 1 eye x 4 sizes", lambda: model.predict_sizes(many.head(1)), plain_predictions(many_X[:1])),
        (f"answer, {len(many):,} eyes x 4 sizes", lambda: model.predict_sizes(many), plain_predictions(many_X)),
    ]
    table = [(name, seconds(ours, runs), seconds(bare, runs)) for name, ours, bare in rows]
    frame = pd.DataFrame(table, columns=["work", "lensnb_s", "pygam_alone_s"]).set_index("work")
    print(frame.assign(ratio=frame["lensnb_s"] / frame["pygam_alone_s"]).round(4).to_string())
    return 0


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
