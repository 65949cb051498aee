// A bridge, and egress on it: neighbours are reached as ever, and what leaves the subnet is decided about.
import { expect, test } from 'vitest';
import { describeNeeding } from '../helpers/lane.js';
import { onHost } from '../helpers/network.js';

const subnets = `['10.21.0.0/24', 'fd21::/64']`;
/** What was denied is told with the answers. */
const asking = `
  const tcp = (address, port = 8080) => ['connect-tcp', address, port, '?'];
  const askTelling = async (questions, options) => {
    const child = spawnIsolated('/probe/probe', words(questions), { mounts, ...options });
    const denied = [];
    child.on('denied', ({ kind, address, port, hostname }) => denied.push([kind, hostname, address, port].filter(Boolean).join(' ')));
    let out = '';
    for await (const chunk of child.stdout) out += chunk;
    const { isolation } = await child.exited;
    return { answers: out.trim().split('\\n').map((line) => JSON.parse(line)).map(({ errno, received }) => received ?? errno), denied, network: isolation.network };
  };
`;

describeNeeding(['root', 'program:ip', 'program:nft', 'program:unshare'])('a sandbox on a bridge whose egress is decided', () => {
  test.each(['true', 'false'])('reaches its neighbours, and outside what the list has (masquerade: %s)', async (masquerade) => {
    const seen = await onHost(`${asking}
      const world = await makeWorld();
      await serve('the world', { network: world });
      const bridge = await Bridge.create({ subnet: ${subnets}, masquerade: ${masquerade} });
      const blue = await Bridge.create({ subnet: '10.22.0.0/24' });
      await serve('one', { hostname: 'one', network: { bridge } });
      await serve('two', { hostname: 'two', network: { bridge, egress: 'deny' } });
      await serve('blue', { network: { bridge: blue } });
      const network = (egress) => ({ bridge, egress, dns: { 'db.example': '10.21.0.2', 'world.example': '192.0.2.2' } });
      const near = [tcp('10.21.0.2'), tcp('10.21.0.3'), tcp('fd21::2'), tcp('fd21::3'), tcp('10.21.0.99')];
      const far = [tcp('192.0.2.2'), tcp('2001:db8::2'), tcp('10.22.0.2'), tcp('192.0.2.1')];
      tell({
        none: await askTelling([...near, ...far], { network: network('deny') }),
        some: await askTelling([...near, ...far], { network: network({ allow: ['192.0.2.0/30:8080', '2001:db8::/64', '10.22.0.2'] }) }),
        ...(${masquerade} ? { open: (await askTelling(far, { network: { bridge } })).answers } : {}),
      });
    `);
    expect(seen).toMatchSnapshot();
  });
});
