// Writes test/native/corpus: plans as real spawns compile to, for the fuzzer to start from. scripts/test-native.sh runs it.

import { mkdirSync, rmSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

const dist = new URL('../dist/', import.meta.url);
const { PlanBuilder } = await import(new URL('plan/builder.js', dist));
const { explain, OverlayRootfs } = await import(new URL('index.js', dist));

const folder = fileURLToPath(new URL('../test/native/corpus/', import.meta.url));
rmSync(folder, { recursive: true, force: true });
mkdirSync(folder, { recursive: true });

// explain() compiles a plan as a spawn does; whoever has added a step last is the builder of it.
let last;
const { add } = PlanBuilder.prototype;
PlanBuilder.prototype.add = function (...args) {
  last = this;
  return add.apply(this, args);
};

const rootfs = await OverlayRootfs.host();
const cases = {
  default: {},
  bare: { namespaces: { mount: 'host', user: 'host', pid: 'host', net: 'host', ipc: 'host', uts: 'host', cgroup: 'host' } },
  mounts: { rootfs, mounts: [{ type: 'tmpfs', target: '/scratch', size: '4M' }], hostname: 'inside', tty: { columns: 80, rows: 24 } },
  settings: { rlimits: { nofile: 64 }, oomScoreAdj: 500, user: 'nobody', capabilities: ['CAP_KILL'], timeOffsets: { monotonic: 1000 } },
};
for (const [name, options] of Object.entries(cases)) {
  last = undefined;
  try {
    await explain('true', ['one', 'two'], options);
  } catch (error) {
    console.error(`${name}: ${error.message}`);
  }
  if (last) writeFileSync(`${folder}${name}.plan`, last.encode());
}

const helpers = new PlanBuilder();
helpers.cloneFlags = 0x10000000;
helpers.idMap = { uid: ['newuidmap', '0', '1000', '1'], gid: ['newgidmap', '0', '1000', '1'] };
helpers.add('await_ids', []);
helpers.add('setgroups', [2, new Uint8Array(8)]);
helpers.add('exec', [['/bin/true'], ['true'], ['A=1']]);
writeFileSync(`${folder}helpers.plan`, helpers.encode());

await rootfs[Symbol.asyncDispose]();
