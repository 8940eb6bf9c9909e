"""The picture of a soak is an SVG with its three curves and every fault."""

import xml.etree.ElementTree as ElementTree

from bench.soak_plot import plot


def test_plot_has_its_curves_and_faults():
    samples = [(100.0 + n, 400.0 + n, 20.0, 'STALE' if n == 3 else 'OK') for n in range(60)]
    root = ElementTree.fromstring(plot(samples, [(110.0, 'bag loop'), (120.0, 'a < b')]))
    curves = root.findall('.//{*}polyline')
    assert [len(curve.get('points').split()) for curve in curves] == [60, 60, 60]
    assert [title.text for title in root.iter('{http://www.w3.org/2000/svg}title')] == [
        'bag loop', 'a < b']
    heights = [float(point.split(',')[1]) for point in curves[2].get('points').split()]
    assert len(set(heights)) == 2 and heights[3] == min(heights), 'the state is drawn'
    assert ElementTree.fromstring(plot([], [])).tag.endswith('svg')
