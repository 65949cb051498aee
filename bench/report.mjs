// What was measured, as a table for people and as JSON.

const micros = (value) => (value >= 9999.5 ? `${(value / 1e3).toFixed(1)} ms` : value >= 99.5 ? `${value.toFixed(0)} µs` : `${value.toFixed(1)} µs`);
const millis = (value) => (value / 1e3).toPrecision(value >= 1e6 ? 4 : 3);
const sum = (counts) => Math.round(Object.values(counts).reduce((total, count) => total + count, 0));

export class Report {
  #about;
  #rows = [];
  #missing = [];
  #notes = [];
  #syscalls;
  #parts;

  constructor(about) {
    this.#about = about;
  }

  /** `use`: the statistic that the goal speaks of. */
  compare(row, what, ours, against, theirs, { goal, condition = '', use = 'median' } = {}) {
    const ratio = ours[use] / theirs[use];
    this.#rows.push({ row, what, condition, use, ours, against, theirs, ratio, goal, reached: goal === undefined ? undefined : ratio <= goal });
  }

  missing(row, what, reason) {
    this.#missing.push({ row, what, reason });
  }

  note(text) {
    this.#notes.push(text);
  }

  syscalls(counts) {
    this.#syscalls = counts;
  }

  parts(byOption, byStep) {
    this.#parts = { byOption, byStep };
  }

  json() {
    return { ...this.#about, rows: this.#rows, missing: this.#missing, notes: this.#notes, syscalls: this.#syscalls, parts: this.#parts };
  }

  table() {
    const { quick, date, commit, kernel, node, processor, user } = this.#about;
    const lines = [
      `cloister ${commit}, ${date}${quick ? ' (quick: too few runs to quote)' : ''}`,
      `Linux ${kernel}, Node ${node}, ${processor}, as ${user}`,
      '',
    ];
    const widths = [2, 27, 13, 7, 7, 13, 7, 6, 8];
    const line = (...cells) =>
      lines.push(
        cells
          .map((cell, i) => (i < 3 || i === 5 ? String(cell).padEnd(widths[i]) : String(cell).padStart(widths[i])))
          .join(' ')
          .trimEnd(),
      );
    if (this.#rows.length > 0) {
      line('#', 'milliseconds', 'condition', 'median', 'p99', '÷', 'median', 'ratio', 'goal');
      for (const { row, what, condition, ours, against, theirs, ratio, goal, reached, use } of this.#rows.sort((a, b) => a.row - b.row)) {
        const show = use === 'p99' ? 'p99' : 'median';
        line(
          row,
          what,
          condition,
          millis(ours.median),
          millis(ours.p99),
          against,
          millis(theirs[show]),
          ratio.toFixed(3),
          goal === undefined ? '' : `≤ ${goal} ${reached ? '✓' : '✗'}`,
        );
      }
    }
    for (const { row, what, reason } of this.#missing) lines.push(`${String(row).padEnd(3)} ${what}: missing, ${reason}`);
    if (this.#syscalls) lines.push('', ...this.#syscallLines());
    if (this.#parts) lines.push('', ...this.#partLines());
    if (this.#notes.length > 0) lines.push('', ...this.#notes.map((note) => `Note: ${note}.`));
    return `${lines.join('\n')}\n`;
  }

  #syscallLines() {
    const { plan, ran, strace } = this.#syscalls;
    const lines = ['13  System calls of one full spawn, nothing made ahead'];
    const row = (what, count, more = '') => lines.push(`    ${what.padEnd(44)} ${String(count).padStart(5)}  ${more}`.trimEnd());
    row('plan, in the parent', ran.parent, plan.parent === ran.parent ? '' : `of ${plan.parent} that may be needed`);
    row(
      'plan, in the child, until exec',
      ran.child,
      plan.child - 1 === ran.child ? '' : `of ${plan.child - 1} that may be needed; and futex until the ids are mapped`,
    );
    for (const [label, count] of Object.entries(plan.byLabel)) lines.push(`      ${label.padEnd(60)} ${String(count).padStart(4)}`);
    if (strace.missing) {
      lines.push(`    by strace: missing, ${strace.missing}`);
      return lines;
    }
    for (const [kind, name] of [
      ['full', 'cloister'],
      ['plain', 'child_process'],
    ]) {
      const { main, threads, children } = strace[kind];
      row(`strace of ${name}: main thread`, sum(main), list(main));
      row(`strace of ${name}: other threads`, sum(threads), list(threads));
      const { futex: _waits, ...made } = children;
      const same = kind === 'full' ? (sum(made) === ran.child ? '✓ as the plan says' : `✗ the plan says ${ran.child}`) : list(children);
      row(`strace of ${name}: child until exec`, sum(made), same);
    }
    return lines;
  }

  #partLines() {
    const { byOption, byStep } = this.#parts;
    const lines = [`    What one part costs: the whole (${micros(byOption.whole.median)}) less the median without it`];
    for (const [name, saved] of Object.entries(byOption.saved)) lines.push(`      ${name.padEnd(60)} ${micros(saved).padStart(9)}`);
    for (const [name, reason] of Object.entries(byOption.missing)) lines.push(`      ${name}: can't be left out here, ${reason}`.slice(0, 100));
    lines.push('', '    The steps, timed one by one inside the limit program (sum of medians; calls that were made)');
    for (const { label, median, calls } of byStep.steps) lines.push(`      ${label.padEnd(60)} ${micros(median).padStart(9)} ${String(calls).padStart(5)}`);
    for (const [name, { median }] of Object.entries(byStep.moments))
      if (!name.startsWith('calls')) lines.push(`      = ${name.padEnd(58)} ${micros(median).padStart(9)}`);
    return lines;
  }
}

function list(counts) {
  const sorted = Object.entries(counts)
    .filter(([, count]) => count >= 0.5)
    .sort(([, a], [, b]) => b - a);
  const text = sorted
    .slice(0, 6)
    .map(([name, count]) => `${Math.round(count)} ${name}`)
    .join(', ');
  return text.length > 44 ? `${text.slice(0, 43)}…` : text;
}
