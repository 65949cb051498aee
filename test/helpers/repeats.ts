/**
 * How often a test that tries many does so: as often as its own variable says (`CLOISTER_HISTORIES=5000`), else that share of its count which
 * `CLOISTER_SHARE` says. A machine that is emulated has a share of the time that others have.
 */
export function repeats(count: number, variable?: `CLOISTER_${string}`): number {
  const asked = variable && process.env[variable];
  return asked ? Number(asked) : Math.max(1, Math.ceil(count * Number(process.env['CLOISTER_SHARE'] ?? 1)));
}

/** How much longer such a machine may take before something is said to hang. */
export const patience = Number(process.env['CLOISTER_PATIENCE'] ?? 1);
