//! Minimisation of a smooth function of a few variables with its gradient: BFGS with a dense inverse Hessian.
//!
//! Every fit of this crate has at most a few dozen parameters and a gradient that tests compare with differences, so a
//! hundred lines do what a library would. It never draws a random number: equal inputs give equal bits.
//!
//! Source: Nocedal, Wright, "Numerical Optimization", 2nd ed., algorithm 6.1, with a backtracking line search.

/// Where a minimisation ended.
#[derive(Debug, Clone, PartialEq)]
pub struct Minimum {
    /// The place.
    pub at: Vec<f64>,
    /// The value there.
    pub value: f64,
    /// Steps taken.
    pub steps: u32,
    /// Whether the gradient vanished (or no step could improve the value any more); `false` when the steps ran out.
    pub converged: bool,
}

/// Longest step in any variable: the parameters of this crate are logarithms or standardised weights.
const MAX_STEP: f64 = 2.0;

/// Minimises `f`, which returns its value and writes its gradient, from `start`. A value that is not finite is a wall.
pub fn minimise(
    start: &[f64],
    max_steps: u32,
    tolerance: f64,
    mut f: impl FnMut(&[f64], &mut [f64]) -> f64,
) -> Minimum {
    let n = start.len();
    let mut at = start.to_vec();
    let mut gradient = vec![0.0; n];
    let mut value = f(&at, &mut gradient);
    let mut inverse = Inverse::identity(n);
    let (mut next, mut next_gradient) = (vec![0.0; n], vec![0.0; n]);
    let mut fresh = true;
    for steps in 0..max_steps {
        if norm(&gradient) <= tolerance * value.abs().max(1.0) {
            return Minimum {
                at,
                value,
                steps,
                converged: true,
            };
        }
        let mut direction = inverse.times(&gradient);
        direction.iter_mut().for_each(|d| *d = -*d);
        let mut slope = dot(&direction, &gradient);
        if slope >= 0.0 || !slope.is_finite() {
            inverse = Inverse::identity(n);
            fresh = true;
            direction = gradient.iter().map(|g| -g).collect();
            slope = dot(&direction, &gradient);
        }
        let longest = norm(&direction);
        // Without curvature yet, the gradient's length says nothing about how far to go.
        let mut scale = if fresh {
            (0.3 / longest).min(1.0)
        } else {
            (MAX_STEP / longest).min(1.0)
        };
        let mut improved = false;
        for _ in 0..50 {
            for ((to, from), d) in next.iter_mut().zip(&at).zip(&direction) {
                *to = from + scale * d;
            }
            let candidate = f(&next, &mut next_gradient);
            if candidate.is_finite() && candidate <= value + 1e-4 * scale * slope {
                improved = candidate < value;
                let moved: Vec<f64> = next.iter().zip(&at).map(|(a, b)| a - b).collect();
                let turned: Vec<f64> = next_gradient.iter().zip(&gradient).map(|(a, b)| a - b).collect();
                inverse.update(&moved, &turned, fresh);
                fresh = false;
                value = candidate;
                std::mem::swap(&mut at, &mut next);
                std::mem::swap(&mut gradient, &mut next_gradient);
                break;
            }
            scale *= if candidate.is_finite() { 0.5 } else { 0.1 };
        }
        if !improved {
            return Minimum {
                at,
                value,
                steps,
                converged: true,
            };
        }
    }
    Minimum {
        at,
        value,
        steps: max_steps,
        converged: false,
    }
}

/// The inverse Hessian, row by row.
struct Inverse {
    rows: Vec<Vec<f64>>,
}

impl Inverse {
    fn identity(n: usize) -> Self {
        let row = |i: usize| (0..n).map(|j| if i == j { 1.0 } else { 0.0 }).collect();
        Self {
            rows: (0..n).map(row).collect(),
        }
    }

    fn times(&self, v: &[f64]) -> Vec<f64> {
        self.rows.iter().map(|row| dot(row, v)).collect()
    }

    /// H ← (I − ρ s yᵀ) H (I − ρ y sᵀ) + ρ s sᵀ; left alone where the curvature is not positive.
    fn update(&mut self, s: &[f64], y: &[f64], first: bool) {
        let curvature = dot(s, y);
        if curvature <= 1e-12 * norm(s) * norm(y) {
            return;
        }
        if first {
            let scale = curvature / dot(y, y);
            self.rows.iter_mut().flatten().for_each(|h| *h *= scale);
        }
        let rho = 1.0 / curvature;
        let hy = self.times(y);
        let factor = rho * (1.0 + rho * dot(y, &hy));
        for ((row, si), hyi) in self.rows.iter_mut().zip(s).zip(&hy) {
            for ((h, sj), hyj) in row.iter_mut().zip(s).zip(&hy) {
                *h += factor * si * sj - rho * (hyi * sj + si * hyj);
            }
        }
    }
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// The largest component.
fn norm(v: &[f64]) -> f64 {
    v.iter().fold(0.0, |most, x| x.abs().max(most))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_bottom_of_rosenbrocks_valley() {
        let minimum = minimise(&[-1.2, 1.0], 500, 1e-10, |x, g| {
            let (a, b) = (1.0 - x[0], x[1] - x[0] * x[0]);
            g[0] = -2.0 * a - 400.0 * x[0] * b;
            g[1] = 200.0 * b;
            a * a + 100.0 * b * b
        });
        assert!(
            minimum.converged && minimum.at.iter().all(|x| (x - 1.0).abs() < 1e-6),
            "{minimum:?}"
        );
    }

    #[test]
    fn a_wall_is_not_crossed() {
        let minimum = minimise(&[3.0], 200, 1e-12, |x, g| {
            g[0] = 1.0 - 1.0 / x[0];
            if x[0] > 0.0 { x[0] - libm::log(x[0]) } else { f64::NAN }
        });
        assert!((minimum.at[0] - 1.0).abs() < 1e-6, "{minimum:?}");
    }
}
