// The medians as horizontal bars on a logarithmic scale, an SVG without scripts or fonts of its own.

const ours = '#1f6f8b';
const others = '#b9bec4';
const ink = '#1b1f24';
const faint = '#6a737d';

const escaped = (text) => text.replace(/[&<>]/g, (char) => ({ '&': '&amp;', '<': '&lt;', '>': '&gt;' })[char]);
const micros = (value) => (value >= 999.5 ? `${(value / 1e3).toFixed(value >= 9999.5 ? 1 : 2)} ms` : `${value.toFixed(value >= 99.5 ? 0 : 1)} µs`);
const titles = {
  1: 'A whole spawn, from call to exit, and plain child_process',
  2: 'The same system calls made by a C program',
  3: 'Time that the event loop is held',
  4: 'Other sandboxes, started from Node',
};

export function chart({ rows, date, kernel, node, processor, quick, commit }) {
  const groups = groupsOf(rows);
  const values = groups.flatMap(({ bars }) => bars.map(({ value }) => value));
  const width = 960;
  const left = 330;
  const right = 220;
  const low = Math.floor(Math.log10(Math.min(...values, 100)));
  const high = Math.ceil(Math.log10(Math.max(...values, 1000)));
  const x = (value) => left + ((Math.log10(value) - low) / (high - low)) * (width - left - right);
  const parts = [];
  const text = (px, py, content, { size = 12, fill = ink, anchor = 'start', weight = 400 } = {}) =>
    parts.push(
      `<text x="${px.toFixed(1)}" y="${py}" font-size="${size}" fill="${fill}" text-anchor="${anchor}" font-weight="${weight}">${escaped(content)}</text>`,
    );
  text(24, 34, 'cloister: what an isolated spawn costs', { size: 20, weight: 600 });
  text(24, 54, `medians, logarithmic scale; shorter is better${quick ? '; quick run, too few to quote' : ''}`, { fill: faint });
  let y = 84;
  const top = y - 10;
  for (const { title, bars } of groups) {
    text(24, y + 8, title, { size: 13, weight: 600 });
    y += 20;
    for (const { label, value, mine, remark, good } of bars) {
      text(left - 10, y + 13, label, { anchor: 'end' });
      parts.push(`<rect x="${left}" y="${y + 2}" width="${Math.max(1, x(value) - left).toFixed(1)}" height="15" rx="2" fill="${mine ? ours : others}"/>`);
      text(x(value) + 6, y + 14, micros(value), { weight: mine ? 600 : 400 });
      if (remark) text(width - 24, y + 14, remark, { anchor: 'end', size: 11, fill: good === undefined ? faint : good ? '#1a7f37' : '#b35900' });
      y += 21;
    }
    y += 14;
  }
  const bottom = y - 8;
  const grid = [];
  for (let power = low; power <= high; power++) {
    const px = x(10 ** power).toFixed(1);
    grid.push(`<line x1="${px}" y1="${top}" x2="${px}" y2="${bottom}" stroke="#e4e7ea"/>`);
    text(Number(px), bottom + 16, 10 ** power >= 1e6 ? `${10 ** (power - 6)} s` : 10 ** power >= 1000 ? `${10 ** (power - 3)} ms` : `${10 ** power} µs`, {
      anchor: 'middle',
      size: 11,
      fill: faint,
    });
  }
  text(24, bottom + 40, `Linux ${kernel}, Node ${node}, ${processor}; cloister ${commit}, ${date.slice(0, 10)}`, { size: 11, fill: faint });
  const height = bottom + 56;
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" width="${width}" height="${height}" font-family="system-ui, 'DejaVu Sans', sans-serif">\n<rect width="${width}" height="${height}" fill="#ffffff"/>\n${grid.join('\n')}\n${parts.join('\n')}\n</svg>\n`;
}

/** A comparison is two bars; what several are compared with is drawn once. */
function groupsOf(rows) {
  const groups = new Map();
  for (const { row, what, condition, use, ours: mine, against, theirs, ratio, goal, reached } of rows) {
    const group = groups.get(row) ?? { title: titles[row] ?? `Row ${row}`, bars: [] };
    groups.set(row, group);
    const where = [row === 4 || row === 2 ? '' : what, condition].filter(Boolean).join(', ');
    const remark = `${ratio < 0.1 ? ratio.toFixed(3) : ratio.toFixed(2)} ×${goal === undefined ? '' : ` (goal ≤ ${goal}${reached ? ' ✓' : ', missed'})`}`;
    const label = row === 3 ? what : `cloister${where ? `: ${where}` : ''}`;
    if (!group.bars.some((bar) => bar.label === label)) group.bars.push({ label, value: mine[use], mine: true });
    group.bars.push({ label: row === 2 || row === 4 ? `${against}, ${condition}` : against, value: theirs[use], mine: false, remark, good: reached });
  }
  return [...groups.values()];
}
