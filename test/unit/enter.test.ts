/** Who goes into a user namespace of somebody else's for us has nothing of ours that could be read there. */
import { closeSync, openSync } from 'node:fs';
import { expect, test } from 'vitest';
import { enter } from '../../lib/namespace/enter.js';
import { PlanBuilder } from '../../lib/plan/builder.js';

test('whoever enters a user namespace has memory of its own, and is unreadable before it is there', () => {
  const fd = openSync('/proc/self/ns/user', 'r');
  try {
    const plan = new PlanBuilder();
    enter(plan, { type: 'user', fd });
    expect(plan.ownMemory).toBe(true);
    expect(plan.all.map(({ kind }) => kind)).toEqual(['prctl', 'setns']);
  } finally {
    closeSync(fd);
  }
});
