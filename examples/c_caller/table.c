/* A table of ELU, SELU and CELU with their derivatives, without Python at run time: reads numbers from standard input
 * and writes a line for each, in hexadecimal, which loses nothing.
 *
 *     cc -std=c11 -O3 -ffp-contract=off -I"$(python -c 'import elufast; print(elufast.get_include())')" table.c -o table -lm
 *     echo -2 -0.5 0 3 | ./table 0.5
 *
 * On x86-64 with -mfma, or -march=native, the bits are those of elufast's arrays.
 */
#include <stdio.h>
#include <stdlib.h>

#include <elufast.h>

int main(int argc, char **argv) {
    double alpha = argc > 1 ? atof(argv[1]) : 1, x;
    printf("x elu elu' selu selu' celu celu'\n");
    while (scanf("%lf", &x) == 1) {
        float y = (float)x;
        printf("%a", x);
        printf(" %a %a", elufast_elu_f64(x, alpha), elufast_elu_backward_f64(1, x, alpha));
        printf(" %a %a", elufast_selu_f64(x), elufast_selu_backward_f64(1, x));
        printf(" %a %a\n", elufast_celu_f64(x, alpha), elufast_celu_backward_f64(1, x, alpha));
        printf("%af", y);
        printf(" %a %a", elufast_elu_f32(y, alpha), elufast_elu_backward_f32(1, y, alpha));
        printf(" %a %a", elufast_selu_f32(y), elufast_selu_backward_f32(1, y));
        printf(" %a %a\n", elufast_celu_f32(y, alpha), elufast_celu_backward_f32(1, y, alpha));
    }
    return 0;
}
