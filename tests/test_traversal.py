import jax.numpy as jnp
import numpy as np

from bvae_jax.traversal import by_size, interpolate, traverse


def show_code(z):
    """A decoder whose image is the code itself."""
    return z[:, None, :, None]


def test_traverse_varies_one_latent_in_each_row():
    code = jnp.array([10.0, 20.0, 30.0])
    values = jnp.array([-1.0, 0.0, 1.0, 2.0])
    grid = np.asarray(traverse(show_code, code, jnp.array([2, 0]), values))
    assert grid.shape == (2, 4, 1, 3, 1)
    for column, value in enumerate(values):
        np.testing.assert_array_equal(grid[0, column, 0, :, 0], [10, 20, value])
        np.testing.assert_array_equal(grid[1, column, 0, :, 0], [value, 20, 30])


def test_interpolate_goes_straight_from_end_to_end():
    start, end = jnp.array([[0.0, 0.0], [1.0, 1.0]]), jnp.array([[4.0, 8.0], [1.0, 5.0]])
    grid = np.asarray(interpolate(show_code, start, end, 5))[:, :, 0, :, 0]
    np.testing.assert_allclose(grid[0], [[0, 0], [1, 2], [2, 4], [3, 6], [4, 8]])
    np.testing.assert_allclose(grid[1], [[1, 1], [1, 2], [1, 3], [1, 4], [1, 5]])


def test_by_kl_puts_the_most_informative_first_and_ties_in_order():
    order = by_size(jnp.array([0.5, 2.0, 0.5, 3.0]))
    np.testing.assert_array_equal(order, [3, 1, 0, 2])
