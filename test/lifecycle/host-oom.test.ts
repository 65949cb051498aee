// Until it executes its program a child shares our memory: whoever kills it for using too much must not mean us.
import { describe, expect } from 'vitest';
import { inChild } from '../helpers/harness.js';
import { testNeeding } from '../helpers/lane.js';

describe('a group that is out of memory', () => {
  testNeeding(['controller:memory'])('from the start: the spawn is refused or killed, the host lives on', async () => {
    const script = `
      import { runIsolated } from 'cloister';
      for (const memory of [0, '4K', '16K', '64K', '128K']) {
        await runIsolated('true', [], { cgroup: { memory } }).then(
          ({ reason }) => console.log(reason === 'exit' || reason === 'oom'),
          ({ code }) => console.log(/^ERR_CLOISTER_/.test(code)),
        );
      }`;
    expect(await inChild(script)).toEqual({ exitCode: 0, signal: null, stdout: 'true\n'.repeat(5), stderr: '' });
  });

  testNeeding(['controller:memory'])(
    'by others, again and again, while programs are started in it: the host lives on',
    async () => {
      const script = `
        import { Cgroup, runIsolated } from 'cloister';
        const cgroup = await Cgroup.create(\`host-oom-\${process.pid}\`, { memory: '24M' });
        const refused = (error) => { if (error.errnoName !== 'ENOMEM' && error.errnoName !== 'E2BIG') throw error; return {}; };
        let killed = 0;
        const greedy = async () => {
          for (let i = 0; i < 15; i++) {
            const { signal } = await runIsolated('sh', ['-c', 'x=0123456789abcdef; while :; do x=$x$x; done'], { cgroup }).catch(refused);
            if (signal === 'SIGKILL') killed++;
          }
        };
        const modest = async () => { for (let i = 0; i < 60; i++) await runIsolated('true', [], { cgroup }).catch(refused); };
        await Promise.all([greedy(), greedy(), modest(), modest()]);
        await cgroup.delete();
        console.log(killed > 0);`;
      expect(await inChild(script, { deadline: 100_000 })).toEqual({ exitCode: 0, signal: null, stdout: 'true\n', stderr: '' });
    },
    120_000,
  );
});
