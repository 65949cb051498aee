import { expect, test } from 'vitest';
import { type HostLayout, hostTree } from '../../lib/rootfs/host-layout.js';

const layout = (mountPoints: readonly string[]): HostLayout => ({
  generation: 0,
  mounts: [{ path: '/', kind: 'directory' }],
  mountPoints,
  hidden: [{ path: '/var/tmp', kind: 'directory', mode: 0o1777 }],
});
const kindsOf = (mountPoints: readonly string[], ...paths: readonly string[]) => {
  const { entries } = hostTree(layout(mountPoints), 1000, true);
  return paths.map((path) => entries.find((entry) => entry.path === path)?.kind ?? 'none');
};

test('a directory is overlaid as a whole, with what is hidden in it', () => {
  expect(kindsOf(['/', '/proc'], '/usr', '/var', '/var/lib', '/var/tmp')).toEqual(['overlay', 'overlay', 'none', 'none']);
});

test('a mount that is hidden is still one that its directory cannot be overlaid with', () => {
  expect(kindsOf(['/', '/proc', '/var/tmp'], '/usr', '/var', '/var/lib', '/var/tmp')).toEqual(['overlay', 'directory', 'overlay', 'directory']);
});
