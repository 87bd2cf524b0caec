#include "result.h"

#include <stdlib.h>

struct result *result_new(size_t size)
{
    struct result *result = malloc(sizeof *result + size + 1);
    if (result) {
        result->refs = 1;
        result->size = result->room = size;
    }
    return result;
}

struct result *result_of(struct handle *handle, size_t room)
{
    struct result *result = NULL;
    pthread_mutex_lock(&handle->lock);
    if (handle->last && handle->last->room >= room && __atomic_load_n(&handle->last->refs, __ATOMIC_ACQUIRE) == 1) {
        result = handle->last;
        handle->last = NULL;
    }
    pthread_mutex_unlock(&handle->lock);
    if (!result && (result = result_new(room)))
        result->size = 0;
    return result;
}

void result_back(struct handle *handle, struct result *result)
{
    pthread_mutex_lock(&handle->lock);
    if (!handle->last) {
        handle->last = result;
        handle->given = result->size < handle->given ? result->size : handle->given;
        result = NULL;
    }
    pthread_mutex_unlock(&handle->lock);
    result_release(result);
}

void result_release(struct result *result)
{
    if (result && __atomic_sub_fetch(&result->refs, 1, __ATOMIC_ACQ_REL) == 0)
        free(result);
}
