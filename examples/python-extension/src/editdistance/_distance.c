#define PY_SSIZE_T_CLEAN
#include <Python.h>

static Py_ssize_t smallest(Py_ssize_t a, Py_ssize_t b, Py_ssize_t c)
{
    Py_ssize_t least = a < b ? a : b;
    return least < c ? least : c;
}

/* One row of the Levenshtein matrix at a time: row[j] is the distance of the characters of `a` seen so far to the first j of `b`. */
static Py_ssize_t levenshtein(PyObject *a, PyObject *b, Py_ssize_t *row)
{
    Py_ssize_t rows = PyUnicode_GET_LENGTH(a), columns = PyUnicode_GET_LENGTH(b);
    for (Py_ssize_t j = 0; j <= columns; j++)
        row[j] = j;
    for (Py_ssize_t i = 0; i < rows; i++) {
        Py_ssize_t diagonal = row[0];
        row[0] = i + 1;
        for (Py_ssize_t j = 0; j < columns; j++) {
            Py_ssize_t replaced = diagonal + (PyUnicode_READ_CHAR(a, i) != PyUnicode_READ_CHAR(b, j));
            diagonal = row[j + 1];
            row[j + 1] = smallest(replaced, row[j] + 1, diagonal + 1);
        }
    }
    return row[columns];
}

static PyObject *distance(PyObject *module, PyObject *args)
{
    PyObject *a, *b;
    if (!PyArg_ParseTuple(args, "UU", &a, &b))
        return NULL;
    Py_ssize_t *row = PyMem_New(Py_ssize_t, PyUnicode_GET_LENGTH(b) + 1);
    if (row == NULL)
        return PyErr_NoMemory();
    Py_ssize_t found = levenshtein(a, b, row);
    PyMem_Free(row);
    return PyLong_FromSsize_t(found);
}

static PyMethodDef methods[] = {
    {"distance", distance, METH_VARARGS, "distance(a, b) -> int"},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {PyModuleDef_HEAD_INIT, "_distance", NULL, -1, methods, NULL, NULL, NULL, NULL};

PyMODINIT_FUNC PyInit__distance(void)
{
    return PyModule_Create(&definition);
}
