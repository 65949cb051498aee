// What is left of bridges: nothing, after many runs, and after a host that was killed.
import { describe, expect, test } from 'vitest';
import { Bridge, IsolationError } from '../../lib/index.js';
import { describeNeeding, testNeeding } from '../helpers/lane.js';
import { onHost } from '../helpers/network.js';

/** Of the host's network, and of this process. */
const count = `
  import { readdirSync, readlinkSync } from 'node:fs';
  const fds = () => readdirSync('/proc/self/fd').flatMap((fd) => { try { return [readlinkSync('/proc/self/fd/' + fd).replace(/\\d+/g, 'N')]; } catch { return []; } }).sort();
  const namesOf = (pid) => { try { return readdirSync('/run/cloister/bridges').filter((name) => name.split('-')[2] === String(pid)); } catch { return []; } };
  const counts = () => ({
    links: ip('link').map(({ ifname, ifalias }) => [ifname, ifalias].join(' ')),
    addresses: ip('address').flatMap(({ addr_info }) => addr_info.map(({ local }) => local)),
    routes: ip('route'),
    rules: run('nft', 'list', 'ruleset'),
    sockets: run('ss', '-tuanH').split('\\n').length,
    names: namesOf(process.pid).length,
    fds: fds(),
  });
`;

describeNeeding(['root', 'program:ip', 'program:nft', 'program:unshare', 'program:ss'])('after 50 runs', () => {
  test('links, tables, sockets, files and descriptors are what they were', { timeout: 120_000 }, async () => {
    const seen = await onHost<{ before: object; during: object; after: object; between: [object, object][] }>(
      `${count}
      const once = async (bridge, n) => ask([['interfaces']], { hostname: 'box' + n, network: { bridge, ports: [{ host: 0, guest: 80, address: '0.0.0.0' }], ...(n % 2 ? { egress: 'deny' } : {}) } });
      // What is made once, and kept.
      const warm = await Bridge.create({ subnet: '10.30.0.0/24' });
      await Promise.all([1, 2, 3, 4, 5].map((n) => once(warm, n)));
      await refusal(warm.attach({}));
      await warm.delete();
      const before = counts();
      const between = [];
      for (let round = 0; round < 2; round++) {
        const bridge = await Bridge.create({ subnet: ['10.30.0.0/24', 'fd30::/64'] });
        const idle = counts();
        for (let batch = 0; batch < 5; batch++) await Promise.all([1, 2, 3, 4, 5].map((n) => once(bridge, n)));
        // What fails on its way leaves as little.
        await refusal(runIsolated('/no/such/program', [], { network: { bridge } }));
        await refusal(runIsolated('/no/such/program', [], { network: { bridge, egress: 'deny' } }));
        await refusal(runIsolated('true', [], { network: { bridge, bandwidth: { delayMs: 5, egressBps: 1000 } }, rootfs: '/no/such/directory' }));
        const now = counts();
        // A bridge that has had its first port has one more address, of the link itself.
        between.push([idle, now].map(({ links, rules, sockets }) => ({ links, rules, sockets })));
        await bridge.delete();
      }
      tell({ before, after: counts(), between });
    `,
      { deadline: 110_000 },
    );
    expect(seen.after).toEqual(seen.before);
    for (const [idle, now] of seen.between) expect(now).toEqual(idle);
  });
});

describeNeeding(['root', 'program:ip', 'program:nft', 'program:unshare'])('a host that is killed', () => {
  /** It makes all that can be left behind, says its pid, and is killed; then the rest is done by the one that lives in the same network. */
  const killed = `${count}
    import { spawn } from 'node:child_process';
    import { once } from 'node:events';
    const held = await Namespace.create('net');
    const other = spawn(process.execPath, ['--input-type=module', '--eval', \`
      import { Bridge, Namespace, spawnIsolated } from 'cloister';
      const bridge = await Bridge.create({ subnet: '10.31.0.0/24', name: 'mine' });
      const unnamed = await Bridge.create({ subnet: '10.32.0.0/24' });
      // What is held by somebody else, and outlives this one.
      await bridge.attach(await Namespace.open(process.argv[1], 'net'));
      const box = spawnIsolated('sleep', ['1000'], { hostname: 'box', network: { bridge: unnamed, egress: 'deny', ports: [{ host: 0, guest: 80, address: '0.0.0.0' }] } });
      await box.spawned;
      console.log('ready');
      setInterval(() => {}, 1000);
    \`, '/proc/' + process.pid + '/fd/' + held.fd], { stdio: ['ignore', 'pipe', 'inherit'] });
    for await (const chunk of other.stdout) if (String(chunk).includes('ready')) break;
    other.kill('SIGKILL');
    await once(other, 'exit');
    const left = { links: ip('link').filter(({ ifalias }) => ifalias).length, tables: run('nft', 'list', 'tables').trim().split('\\n').length, names: namesOf(other.pid).length };
  `;

  test.each([
    ['is found by reap(), which tells', 'const { removed } = await reap(); const ours = removed.filter(({ ownerPid }) => ownerPid === other.pid);'],
    ['is found by the next bridge', "const next = await Bridge.create({ subnet: '10.31.0.0/24', name: 'mine' }); await next.delete(); const ours = [];"],
  ])('%s', async (_, next) => {
    const seen = await onHost<{ left: object; ours: { kind: string }[]; after: unknown }>(`${killed} ${next}
      tell({ left, ours, after: { links: ip('link').map(({ ifname }) => ifname), tables: run('nft', 'list', 'tables'), names: namesOf(other.pid) } });`);
    // Two bridges and the end of a pair; that of the sandbox, which dies with its host, may still be there. Its filter is.
    expect(seen.left).toMatchObject({ tables: 3, names: 1 });
    expect(seen.after).toEqual({ links: ['lo'], tables: '', names: [] });
    expect(new Set(seen.ours.map(({ kind }) => kind))).toEqual(new Set(next.includes('reap') ? ['link', 'packet filter', 'names'] : []));
  });

  test('is not taken for dead while it lives', async () => {
    const seen = await onHost(`
      const bridge = await Bridge.create({ subnet: '10.31.0.0/24' });
      const { removed } = await reap();
      const other = JSON.parse(run(process.execPath, '--input-type=module', '--eval', "import { reap } from 'cloister'; console.log(JSON.stringify(await reap()))"));
      const own = (each) => each.ownerPid === process.pid;
      tell({ removed: removed.filter(own), other: other.removed.filter(own), links: ip('link').length });
    `);
    expect(seen).toEqual({ removed: [], other: [], links: 2 });
  });
});

describe('without the right to change the network', () => {
  testNeeding(['unprivileged'])('a bridge is refused, and it is said why', async () => {
    const error = await Bridge.create({ subnet: '10.31.0.0/24' }).then(
      () => undefined,
      (error: unknown) => error,
    );
    expect(error).toBeInstanceOf(IsolationError);
    expect(`${(error as IsolationError).code} ${(error as Error).message}`.replace(/clb\S+/, 'NAME')).toMatchInlineSnapshot(`
      "ERR_CLOISTER_NETWORK EPERM: make the bridge NAME (sendmsg): changing a network takes CAP_NET_ADMIN over it
        Run as root, or give this process CAP_NET_ADMIN and CAP_SYS_ADMIN. What needs no such right: published ports and egress without a bridge."
    `);
  });
});
