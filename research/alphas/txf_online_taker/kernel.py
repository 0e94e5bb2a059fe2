"""Learn what imbalance and order flow are worth, from the mid's move one second later.

A normalized least-mean-square filter with two inputs, sampled eight times a second. An expression
cannot say it: the weights are memory that is fed by its own errors.

Status 1: a feature has no value; 2: fewer than eight samples since the start or a gap.
"""

from hft_platform.kernels import kernel, math

STEP_S = 0.125
"""Between two samples."""
SLOTS = 8
"""Samples kept; as many steps are the horizon of one second."""
WEIGHT_FLOW = 0
WEIGHT_IMBALANCE = 1
LAST_S = 2
COUNT = 3
FLOW = 4
IMBALANCE = 12
DEVIATION = 20


@kernel(
    features=("ofi_l1_1s", "imbalance_l1", "return_10s"),
    parameters=("rate",),
    state_count=28,
)
def online_flow(features, parameters, state, out, now_ns, is_reset):
    """Predict the mid's move of the next second, in ticks."""
    flow = math.tanh(0.25 * features[0])
    imbalance = features[1]
    deviation = features[2]
    total = flow + imbalance + deviation
    if total - total != 0.0:
        return 1
    now_s = now_ns * 1e-9
    if is_reset == 1 or state[COUNT] == 0.0 or now_s - state[LAST_S] >= STEP_S:
        if state[COUNT] >= SLOTS:
            # The oldest sample is a second old: what it predicted can be held against what came.
            was_flow = state[FLOW]
            was_imbalance = state[IMBALANCE]
            move = deviation - state[DEVIATION]
            predicted = state[WEIGHT_FLOW] * was_flow + state[WEIGHT_IMBALANCE] * was_imbalance
            power = 0.1 + was_flow * was_flow + was_imbalance * was_imbalance
            step = parameters[0] * (move - predicted) / power
            state[WEIGHT_FLOW] += step * was_flow
            state[WEIGHT_IMBALANCE] += step * was_imbalance
        for slot in range(SLOTS - 1):
            state[FLOW + slot] = state[FLOW + slot + 1]
            state[IMBALANCE + slot] = state[IMBALANCE + slot + 1]
            state[DEVIATION + slot] = state[DEVIATION + slot + 1]
        state[FLOW + SLOTS - 1] = flow
        state[IMBALANCE + SLOTS - 1] = imbalance
        state[DEVIATION + SLOTS - 1] = deviation
        state[LAST_S] = now_s
        state[COUNT] += 1.0
    if state[COUNT] < SLOTS:
        return 2
    out[0] = state[WEIGHT_FLOW] * flow + state[WEIGHT_IMBALANCE] * imbalance
    return 0
