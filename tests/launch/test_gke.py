"""GKE: what Cluster Toolkit, docker and kubectl are given, and what the JobSet says about restarts."""

import re
import shutil
import subprocess

import pytest
import yaml

from launch import stubs

TOOLKIT = ('--name=rfn', '--image=I', '--cluster=c', '--location=l')
KUBECTL = ('--name=rfn', '--image=I', '--kubectl', '--queue=q', '--restarts=7')
RUN = ('--', 'run', '--workdir=gs://b/a b', '--config.name="&\\')
SUBMIT = ['gcluster', 'job', 'submit', '--name=rfn', '--cluster=c', '--location=l', '--image=I']
SPOT = '--node-constraint=cloud.google.com/gke-spot=true'
LIMITS = ['--restarts=100', '--grace-period=120s']
WORDS = "'--workdir=gs://b/a b' '--config.name=\"&\\'"


@pytest.mark.parametrize(
    ('flags', 'submitted', 'coordination'),
    [
        (('--accelerator=v6e-16',), ['--compute-type=v6e-16', *LIMITS], ''),
        (
            ('--accelerator=a3-highgpu-8g', '--hosts=2', '--project=p', '--spot', '--data=b'),
            ['--compute-type=a3-highgpu-8g', *LIMITS, '--project=p', '--num-nodes=2', SPOT, '--mount=gs://b:/data:ro'],
            ' --coordinator=rfn-main-job-0-0.rfn:8476 --processes=2 --process=$JOB_COMPLETION_INDEX',
        ),
    ],
)
def test_cluster_toolkit(commands, flags, submitted, coordination):
    assert commands.run('gke.sh', *TOOLKIT, *flags, *RUN).returncode == 0
    command = f'--command=exec rfn-jax run {WORDS}{coordination}'
    assert commands.calls() == [[*SUBMIT, *submitted, command]]


@pytest.mark.parametrize(('accelerator', 'extra'), [('v6e-16', 'tpu'), ('g2-standard-4', 'cuda')])
def test_the_image_is_built_for_the_accelerator_and_a_failed_build_ends_it(commands, accelerator, extra):
    commands.answer([['push', 1, 'denied']])
    assert commands.run('gke.sh', *TOOLKIT, '--build', f'--accelerator={accelerator}', *RUN).returncode == 1
    build, push = commands.calls()
    assert build[:5] == [
        'docker',
        'build',
        f'--file={stubs.LAUNCH}/Dockerfile',
        f'--build-arg=EXTRA={extra}',
        '--tag=I',
    ]
    assert push == ['docker', 'push', 'I']


@pytest.mark.parametrize(
    ('flags', 'resource', 'selector', 'coordination'),
    [
        (
            ('--accelerator=tpu-v6e-slice', '--topology=4x4', '--hosts=4'),
            {'google.com/tpu': 4},
            {'cloud.google.com/gke-tpu-accelerator': 'tpu-v6e-slice', 'cloud.google.com/gke-tpu-topology': '4x4'},
            [],
        ),
        (
            ('--accelerator=nvidia-h100-80gb', '--hosts=2', '--chips=8', '--spot', '--data=b', '--account=a'),
            {'nvidia.com/gpu': 8},
            {'cloud.google.com/gke-accelerator': 'nvidia-h100-80gb', 'cloud.google.com/gke-spot': 'true'},
            ['--coordinator=rfn-hosts-0-0.rfn:8476', '--processes=2', '--process=$(PROCESS)'],
        ),
    ],
)
def test_plain_kubectl(commands, flags, resource, selector, coordination):
    assert commands.run('gke.sh', *KUBECTL, *flags, *RUN).returncode == 0
    ((call, text, _),) = commands.records()
    assert call == ['kubectl', 'apply', '--filename=-']
    assert commands.run('gke.sh', '--dry-run', *KUBECTL, *flags, *RUN).stdout == (
        f"kubectl apply --filename=- <<'EOF'\n{text}EOF\n"
    )
    jobset = yaml.safe_load(text)
    assert jobset['metadata']['name'] == 'rfn'
    assert jobset['metadata']['labels'] == {'kueue.x-k8s.io/queue-name': 'q'}
    assert bool(jobset['metadata']['annotations']) == ('google.com/tpu' in resource)
    policy = jobset['spec']['failurePolicy']
    assert policy['maxRestarts'] == 7
    assert [(rule['action'], rule['onJobFailureReasons']) for rule in policy['rules']] == [
        ('FailJobSet', ['PodFailurePolicy'])
    ]
    (hosts,) = jobset['spec']['replicatedJobs']
    job = hosts['template']['spec']
    assert job['parallelism'] == job['completions'] == int(flags[-1 if 'tpu' in flags[0] else 1].split('=')[1])
    assert (hosts['name'], job['completionMode'], job['backoffLimit']) == ('hosts', 'Indexed', 0)
    pod = job['template']['spec']
    (container,) = pod['containers']
    (rule,) = job['podFailurePolicy']['rules']
    assert rule['action'] == 'FailJob'
    assert rule['onExitCodes'] == {'containerName': container['name'], 'operator': 'In', 'values': [2]}
    assert (pod['restartPolicy'], pod['nodeSelector']) == ('Never', selector)  # a rule for pods needs `Never`
    assert container['args'] == [*RUN[1:], *coordination]
    assert (container['image'], container['resources']['limits']) == ('I', resource)
    if '--data=b' in flags:
        (volume,), (mount,) = pod['volumes'], container['volumeMounts']
        assert (volume['csi']['driver'], volume['csi']['volumeAttributes']) == (
            'gcsfuse.csi.storage.gke.io',
            {'bucketName': 'b'},
        )
        assert (mount['name'], mount['mountPath'], pod['serviceAccountName']) == (volume['name'], '/data', 'a')
    else:
        assert (pod['volumes'], container['volumeMounts'], pod['serviceAccountName']) == ([], [], 'default')
    assert 'job-completion-index' in container['env'][0]['valueFrom']['fieldRef']['fieldPath']


def test_every_variable_of_the_template_is_documented_and_filled_by_envsubst_too():
    text = (stubs.LAUNCH / 'jobset.yaml').read_text()
    head = ''.join(re.findall('^#.*\n', text, re.MULTILINE))
    names = set(re.findall(r'\$\{(\w+)\}', text.replace(head, '')))
    assert names == set(re.findall(r'^#   \$\{(\w+)\}  ', head, re.MULTILINE))
    if shutil.which('envsubst') is None:
        pytest.skip('envsubst is not installed')
    values = dict.fromkeys(names, '1') | {
        'SELECTOR': '{}',
        'ANNOTATIONS': '{}',
        'ARGUMENTS': '["run"]',
        'RESOURCE': 'a/b',
    }
    filled = subprocess.run(['envsubst'], input=text, env=values, capture_output=True, text=True, check=True).stdout
    assert yaml.safe_load(filled)['spec']['replicatedJobs'][0]['template']['spec']['completions'] == 1


def test_the_image_is_small_and_runs_as_a_user():
    lines = (stubs.LAUNCH / 'Dockerfile').read_text().splitlines()
    assert [line for line in lines if line.startswith(('FROM', 'USER', 'ENTRYPOINT'))] == [
        'FROM python:3.12-slim', 'USER rfn', 'ENTRYPOINT ["rfn-jax"]'
    ]  # fmt: skip
    root = stubs.LAUNCH.parent
    sources = [word for line in lines if line.startswith('COPY') for word in line.split()[1:-1]]
    assert all((root / source).exists() for source in sources)
    ignored = (stubs.LAUNCH / 'Dockerfile.dockerignore').read_text()
    assert all(f'!{source}\n' in ignored for source in sources)
