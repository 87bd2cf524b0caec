"""What is measured: rounds on one side after the other, their medians, and ratios of one round's sides."""

import dataclasses
import statistics


def quartiles(values):
    if len(values) < 2:
        return [values[0]] * 3
    return statistics.quantiles(values, n=4, method='inclusive')


def summary(values):
    """With the rounds themselves, so that others can make their own of them."""
    q1, median, q3 = quartiles(values)
    return {'median': median, 'q1': q1, 'q3': q3, 'rounds': values}


@dataclasses.dataclass(frozen=True)
class Target:
    """A bound for the median of a ratio."""
    bound: float
    at_least: bool = False

    def __str__(self):
        return f'{">=" if self.at_least else "<="} {self.bound:g}'

    def reached_by(self, value):
        return value >= self.bound if self.at_least else value <= self.bound


@dataclasses.dataclass
class Row:
    """One thing that was measured, on several sides; `sides` has a list of rounds for each.

    A unit is ns, lines/s, bytes/s, or a plain count's name. `note` is for the reader.
    """
    section: str
    name: str
    unit: str
    sides: dict
    clients: int = 1
    note: str = ''
    ratios: list = dataclasses.field(default_factory=list)

    def compare(self, of, to, target=None):
        """Of each round, as the machine is not the same from one second to the next."""
        values = [a / b for a, b in zip(self.sides[of], self.sides[to])]
        ratio = {'of': of, 'to': to, **summary(values)}
        if target:
            ratio |= {'target': str(target), 'bound': target.bound, 'at_least': target.at_least,
                      'reached': target.reached_by(ratio['median'])}
        self.ratios.append(ratio)
        return self

    def limit(self, side, target):
        """A bound for what was measured itself."""
        if target:
            value = summary(self.sides[side])
            self.ratios.append({'of': side, 'to': None, **value, 'target': str(target), 'bound': target.bound,
                                'at_least': target.at_least, 'reached': target.reached_by(value['median'])})
        return self

    def json(self):
        return dataclasses.asdict(self) | {'sides': {side: summary(rounds) for side, rounds in self.sides.items()}}


def read_rounds(output, sides):
    """What client and pair print: by side, the rounds."""
    rounds = {side: [] for side in sides}
    for line in output.splitlines():
        _, side, value = line.split()
        rounds[sides[int(side)]].append(float(value))
    return rounds
