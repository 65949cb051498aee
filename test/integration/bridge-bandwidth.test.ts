// Rates, delay and loss of sandboxes on a bridge, in hosts of the test's own.
import { expect, test } from 'vitest';
import { describeNeeding, testNeeding } from '../helpers/lane.js';
import { onHost } from '../helpers/network.js';

/** What tc(8) says of a link: on the host, or inside. */
const qdiscs = `
  const shown = (text) => JSON.parse(text).filter(({ kind }) => kind !== 'noqueue').map(({ kind, root, parent, options }) => ({ kind, at: root ? 'root' : parent, ...options }));
  const outside = () => shown(run('tc', '-j', 'qdisc'));
  const inside = (net) => shown(run('nsenter', inNet(net), 'tc', '-j', 'qdisc'));
`;

describeNeeding(['root', 'program:ip', 'program:tc', 'program:unshare'])('bandwidth', () => {
  test('is what tc shows, of what is received outside, and of what is sent inside', async () => {
    const seen = await onHost(`${qdiscs}
      const bridge = await Bridge.create({ subnet: '10.41.0.0/24' });
      const [slow, fast, free] = [await Namespace.create('net'), await Namespace.create('net'), await Namespace.create('net')];
      await bridge.attach(free);
      const before = [outside(), inside(free)];
      await bridge.attach(slow, { bandwidth: { egressBps: 20_000, ingressBps: 1_000_000 } });
      const ofSlow = [outside(), inside(slow)];
      await bridge.attach(fast, { bandwidth: { egressBps: 12_500_000_000 } });
      tell({ before, ofSlow, ofFast: inside(fast) });
    `);
    // Latency is in microseconds, as long as the queue takes at that rate.
    expect(seen).toMatchInlineSnapshot(`
      {
        "before": [
          [],
          [],
        ],
        "ofFast": [
          {
            "at": "root",
            "burst": 62487500,
            "kind": "tbf",
            "lat": 50001,
            "rate": 12500000000,
          },
        ],
        "ofSlow": [
          [
            {
              "at": "root",
              "burst": 5000,
              "kind": "tbf",
              "lat": 50000,
              "rate": 1000000,
            },
          ],
          [
            {
              "at": "root",
              "burst": 3200,
              "kind": "tbf",
              "lat": 1600000,
              "rate": 20000,
            },
          ],
        ],
      }
    `);
  });

  testNeeding(['steady-rates', 'program:iperf3'])('holds iperf3 to it within 15 %, both ways', async () => {
    const rate = 12_500_000;
    const { sent, received } = await onHost<{ sent: number; received: number }>(`
      const bridge = await Bridge.create({ subnet: '10.41.0.0/24' });
      const server = spawnIsolated('iperf3', ['--server', '--forceflush'], { network: { bridge, bandwidth: { egressBps: ${rate}, ingressBps: ${rate} } } });
      for await (const chunk of server.stdout) if (String(chunk).includes('listening')) break;
      const measure = (...args) => JSON.parse(run('iperf3', '--client', '10.41.0.2', '--time', '3', '--json', ...args)).end.sum_received.bits_per_second / 8;
      tell({ received: measure(), sent: measure('--reverse') });
    `);
    expect(sent / rate).toBeGreaterThan(0.85);
    expect(sent / rate).toBeLessThan(1.15);
    expect(received / rate).toBeGreaterThan(0.85);
    expect(received / rate).toBeLessThan(1.15);
  });
});

describeNeeding(['root', 'netem', 'program:ip', 'program:tc', 'program:unshare'])('delay and loss', () => {
  test('are of what is sent', async () => {
    const seen = await onHost<{ shown: object; took: number; lost: string }>(`${qdiscs}
      const bridge = await Bridge.create({ subnet: '10.42.0.0/24' });
      const server = await serve('here', { network: { bridge } });
      const [late, deaf] = [await Namespace.create('net'), await Namespace.create('net')];
      await bridge.attach(late, { bandwidth: { delayMs: 300, lossPercent: 0, egressBps: 1_000_000 } });
      await bridge.attach(deaf, { bandwidth: { lossPercent: 100 } });
      const tcp = ['connect-tcp', '10.42.0.2', 8080, '?'];
      const began = performance.now();
      const [{ received }] = await ask([tcp], { network: late });
      const took = performance.now() - began;
      const [{ errno }] = await ask([tcp], { network: deaf });
      tell({ received, took, lost: errno, shown: inside(late).map(({ kind, at, delay, rate }) => ({ kind, at, delay: delay?.delay, rate })) });
    `);
    expect(seen).toMatchObject({ received: 'here', lost: expect.stringMatching(/ETIMEDOUT|EHOSTUNREACH/) });
    // Of the neighbour's address, of the connection, and of what is said on it.
    expect(seen.took).toBeGreaterThan(600);
    expect(seen.shown).toMatchInlineSnapshot(`
      [
        {
          "at": "root",
          "delay": 0.3,
          "kind": "netem",
        },
        {
          "at": "1:1",
          "kind": "tbf",
          "rate": 1000000,
        },
      ]
    `);
  });

  test('of the delay: both ends wait for it, and nothing that is not delayed', async () => {
    const { undelayed, delayed } = await onHost<{ undelayed: number[]; delayed: number[] }>(`
      const bridge = await Bridge.create({ subnet: '10.43.0.0/24' });
      const connections = async (bandwidth) => {
        const [client, server] = [await Namespace.create('net'), await Namespace.create('net')];
        const { addresses } = await bridge.attach(server, bandwidth);
        await bridge.attach(client, bandwidth);
        await server.listen({ port: 80, host: '0.0.0.0' }, (socket) => socket.end());
        const took = [];
        for (let turn = 0; turn < 6; turn++) {
          const began = performance.now();
          (await client.connect({ host: addresses[0], port: 80 })).destroy();
          took.push(performance.now() - began);
        }
        // The first asks for the neighbour's address too.
        return took.slice(1);
      };
      tell({ undelayed: await connections({}), delayed: await connections({ bandwidth: { delayMs: 400 } }) });
    `);
    // There and back, each of which one end delays.
    expect(Math.min(...delayed)).toBeGreaterThanOrEqual(800);
    expect(Math.min(...delayed) - Math.min(...undelayed)).toBeLessThan(1200);
    expect(Math.min(...undelayed)).toBeLessThan(400);
  });

  testNeeding(['python3'])('of the loss: so many of a thousand datagrams, within six standard deviations', async () => {
    const sent = 1000;
    const percent = 10;
    const { kept, lossless } = await onHost<{ kept: number; lossless: number }>(`
      import dgram from 'node:dgram';
      import { once } from 'node:events';
      const bridge = await Bridge.create({ subnet: '10.44.0.0/24' });
      const receiver = dgram.createSocket('udp4');
      let arrived = 0;
      receiver.on('message', (message) => (message.length === 3 ? receiver.emit('end of round') : arrived++));
      receiver.bind(9000, '10.44.0.1');
      await once(receiver, 'listening');
      const sending = "import socket; s = socket.socket(type=socket.SOCK_DGRAM); s.connect(('10.44.0.1', 9000)); [s.send(b'x') for _ in range(100)]";
      const count = async (bandwidth) => {
        const network = await Namespace.create('net');
        await bridge.attach(network, { bandwidth });
        // The question for the neighbour's address could be lost too, and with it all that waits for the answer.
        run('nsenter', inNet(network), 'ip', 'neighbour', 'replace', '10.44.0.1', 'lladdr', ip('link', 'show', bridge.name)[0].address, 'dev', 'eth0');
        arrived = 0;
        // A hundred at a time, which a receive buffer has room for.
        for (let round = 0; round < ${sent / 100}; round++) {
          await runIsolated('python3', ['-c', sending], { network });
          receiver.send('end', 9000, '10.44.0.1');
          await once(receiver, 'end of round');
        }
        return arrived;
      };
      tell({ lossless: await count({}), kept: await count({ lossPercent: ${percent} }) });
    `);
    expect(lossless).toBe(sent);
    const lost = sent - kept;
    const [expected, deviation] = [(sent * percent) / 100, Math.sqrt(sent * (percent / 100) * (1 - percent / 100))];
    expect(Math.abs(lost - expected), `${lost} of ${sent} are lost`).toBeLessThan(6 * deviation);
  });
});
