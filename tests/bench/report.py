"""Tables, as text and as markdown, from what a run has written as JSON."""

UNITS = {  # the factors and names that a unit is shown in
    'ns': [(1e9, 's'), (1e6, 'ms'), (1e3, 'µs'), (1, 'ns')],
    'bytes/s': [(1e9, 'GB/s'), (1e6, 'MB/s')],
    'lines/s': [(1e6, 'M lines/s'), (1e3, 'k lines/s')],
    'bytes': [(1 << 20, 'MiB'), (1 << 10, 'KiB'), (1, 'B')],
}


def number(value):
    """Three figures."""
    if value == int(value) or value > 999:
        return f'{value:.0f}'
    return f'{value:#.3g}'.rstrip('.')


def spread(summary, factor=1, name=''):
    """The median, and in brackets the quartiles where there are some."""
    median, q1, q3 = (number(summary[key] / factor) for key in ('median', 'q1', 'q3'))
    text = median if len(summary['rounds']) < 2 else f'{median} [{q1} {q3}]'
    return f'{text} {name}'.rstrip()


def measured(summary, unit):
    scales = UNITS.get(unit)
    if not scales:
        return spread(summary)
    return spread(summary, *next((scale for scale in scales if summary['median'] >= scale[0]), scales[-1]))


def table_of(rows):
    """A header and lines of cells; columns that no row has anything for are left out."""
    sides = list(dict.fromkeys(side for row in rows for side in row['sides']))
    pairs = list(dict.fromkeys((ratio['of'], ratio['to']) for row in rows for ratio in row['ratios'] if ratio['to']))
    columns = ['', 'clients', *sides, *(f'{of} / {to}' for of, to in pairs), 'target', 'reached', 'note']
    lines = []
    for row in rows:
        line = dict.fromkeys(columns, '')
        other_unit = f' ({row["unit"]})' if row['unit'] and row['unit'] not in UNITS else ''
        line |= {'': row['name'] + other_unit, 'clients': str(row['clients']), 'note': row['note']}
        for side, summary in row['sides'].items():
            line[side] = measured(summary, row['unit'])
        for ratio in row['ratios']:
            if ratio['to']:
                line[f'{ratio["of"]} / {ratio["to"]}'] = spread(ratio)
            if 'target' in ratio:
                line['target'] = ratio['target'] if ratio['to'] else shown_bound(ratio, row['unit'])
                line['reached'] = 'yes' if ratio['reached'] else 'NO'
        lines.append(line)
    if all(line['clients'] == '1' for line in lines):
        columns.remove('clients')
    columns = [column for column in columns if any(line[column] for line in lines)]
    return columns, [[line[column] for column in columns] for line in lines]


def shown_bound(ratio, unit):
    sign = '>=' if ratio['at_least'] else '<='
    return f'{sign} {measured({"median": ratio["bound"], "q1": 0, "q3": 0, "rounds": [0]}, unit)}'


def text_table(rows):
    header, lines = table_of(rows)
    widths = [max(map(len, column)) for column in zip(header, *lines)]
    return '\n'.join('  '.join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip()
                     for line in [header, *lines])


def markdown_table(rows):
    header, lines = table_of(rows)
    return '\n'.join('| ' + ' | '.join(line) + ' |' for line in [header, ['---'] * len(header), *lines])


def sections_of(result):
    """The title and rows of each section that has any, in order."""
    for section in result['sections']:
        rows = [row for row in result['rows'] if row['section'] == section['name']]
        if rows:
            yield section['title'], rows


def count_targets(result):
    """How many were reached, and how many there are."""
    targets = [ratio['reached'] for row in result['rows'] for ratio in row['ratios'] if 'target' in ratio]
    return sum(targets), len(targets)


def heading(result):
    """What was measured, on what, when: names and values."""
    machine, product = result['machine'], result['product']
    return [
        ('version', f'{product["version"]}, {product["digest of"]} {product["digest"]}'),
        ('machine', f'{machine["processor"]}, {machine["cores"]} cores, {machine["memory"]}'
                    f'{", virtual" if machine["hypervisor"] else ""}'),
        ('system', f'Linux {machine["kernel"]}, {machine["system"]}, {machine["libc"]}'),
        ('libfuse', machine['libfuse']),
        ('compiler', machine['compiler']),
        ('run', f'{result["started"]}, {result["seconds"]:.0f} s{", quick" if result["quick"] else ""}, '
                f'load {machine["load before"]:.2f} before it'),
    ]


def text_heading(result):
    return '\n'.join(f'{name:9} {value}' for name, value in heading(result))


def ending(result):
    reached, count = count_targets(result)
    return [*result['remarks'], *(f'failed: {failure}' for failure in result['failures']),
            f'{reached} of {count} targets reached']


def markdown(result):
    parts = ['\n'.join(f'- {name}: {value}' for name, value in heading(result))]
    parts.append('Medians of rounds, in brackets their quartiles. A ratio is the median of the ratios of each round.')
    for title, rows in sections_of(result):
        parts += [f'### {title[0].upper()}{title[1:]}', markdown_table(rows)]
    parts.append('\n'.join(f'- {line}' for line in ending(result)))
    return '\n\n'.join(parts) + '\n'
