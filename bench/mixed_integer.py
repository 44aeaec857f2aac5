"""Smallest perturbations as mixed-integer programs, solved by SCIP."""

from __future__ import annotations


def scip(seconds, radius):
    """Mixed-integer optimisation: one binary an opposing neuron, big-M from a ball twice as large
    as the radius, which it is told.
    """
    import numpy as np
    from pyscipopt import Model, quicksum

    def nearest(rows, a, v, bound):
        model = Model()
        model.hideOutput()
        model.setParam("limits/time", seconds)
        model.setParam("limits/gap", 1e-6)
        model.setParam("parallel/maxnthreads", 1)
        u = [model.addVar(lb=-bound, ub=bound) for _ in range(rows.shape[1])]
        square = model.addVar(lb=0, ub=bound**2)
        model.addCons(quicksum(x * x for x in u) <= square)
        terms = []
        reach = bound * np.linalg.norm(rows, axis=1)
        for row, start, weight, far in zip(rows, a, v, reach, strict=True):
            z = start + quicksum(float(c) * x for c, x in zip(row, u, strict=True))
            active = model.addVar(lb=0, ub=max(0.0, start + far))
            if weight > 0:
                model.addCons(active >= z)
            else:
                on = model.addVar(vtype="B")
                model.addCons(active <= z + max(0.0, far - start) * (1 - on))
                model.addCons(active <= max(0.0, start + far) * on)
            terms.append(float(weight) * active)
        model.addCons(quicksum(terms) <= 0)
        model.setObjective(square, "minimize")
        model.optimize()
        proved = model.getStatus() in ("optimal", "gaplimit")
        if model.getNSols() == 0:
            return np.zeros(rows.shape[1]), proved
        return np.array([model.getVal(x) for x in u]), proved

    finished = []

    def run(net, X, y):
        moved = []
        for x, label, length in zip(X, y, radius, strict=True):
            basis, triangle = np.linalg.qr(net.W.T)
            u, proved = nearest(triangle.T, net.W @ x + net.b, label * net.v, 2 * length)
            finished.append(proved)
            moved.append(x + (1 + 1e-6) * basis @ u)
        return np.array(moved)

    return run, finished
