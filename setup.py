"""The ROS package `mos_perception` (ament_python); also installs with pip."""

from glob import glob

from setuptools import find_packages, setup

NAME = 'mos_perception'

setup(
    name=NAME,
    version='0.1.0',
    description='Which things move, per frame, from cameras and event cameras',
    author='mos_perception maintainers',
    maintainer='mos_perception maintainers',
    maintainer_email='maintainers@mos-perception.example',
    license='Apache-2.0',
    packages=find_packages(include=[NAME, f'{NAME}.*']),
    package_data={NAME: ['events/*.cu', 'events/*.h', 'models/dimos/*.cu']},
    python_requires='>=3.10',
    # What a ROS distribution provides is in package.xml; requirements/run.txt lists all for a plain
    # environment.
    install_requires=['setuptools', 'numpy>=1.26'],
    extras_require={'test': ['pytest'], 'gmos': ['transformers>=5.23'], 'ray': ['ray>=2.9'],
                    'rerun': ['rerun-sdk>=0.26']},
    data_files=[
        ('share/ament_index/resource_index/packages', [f'resource/{NAME}']),
        (f'share/{NAME}', ['package.xml']),
        (f'share/{NAME}/launch', glob('launch/*.launch.py')),
        (f'share/{NAME}/config', glob('config/*.*')),
        (f'share/{NAME}/demo', glob('test/bags/demo/*')),
        (f'share/{NAME}/models', glob('models/*.onnx') + glob('models/*.json')),
        (f'share/{NAME}/models/trackers',
         glob('models/trackers/*.onnx') + glob('models/trackers/*.json')),
    ],
    zip_safe=False,
    entry_points={'console_scripts': [
        'mos = mos_perception.cli:main',
        'dimos_node = mos_perception.ros.__main__:main',
        'bag_player = mos_perception.ros.player:main',
        'bag_recorder = mos_perception.ros.recorder:main',
    ]},
)
