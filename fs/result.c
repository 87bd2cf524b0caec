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

struct result *result_at(struct handle *handle, off_t offset, const char **data, size_t *size)
{
    pthread_mutex_lock(&handle->lock);
    struct result *last = handle->last;
    if (last)
        __atomic_add_fetch(&last->refs, 1, __ATOMIC_RELAXED);
    pthread_mutex_unlock(&handle->lock);
    const size_t rest = last && (size_t)offset < last->size ? last->size - offset : 0;
    *data = rest ? last->data + offset : NULL;
    *size = rest < *size ? rest : *size;
    return last;
}

static size_t rest_of(const struct handle *handle)
{
    return handle->last ? handle->last->size - handle->given : 0;
}

bool result_has_rest(struct handle *handle)
{
    pthread_mutex_lock(&handle->lock);
    const bool has = rest_of(handle) > 0;
    pthread_mutex_unlock(&handle->lock);
    return has;
}

struct result *result_rest(struct handle *handle, const char **data, size_t *size)
{
    pthread_mutex_lock(&handle->lock);
    struct result *last = handle->last;
    const size_t rest = rest_of(handle);
    if (rest) {
        *data = last->data + handle->given;
        *size = rest < *size ? rest : *size;
        handle->given += *size;
        __atomic_add_fetch(&last->refs, 1, __ATOMIC_RELAXED);
    }
    pthread_mutex_unlock(&handle->lock);
    return rest ? last : NULL;
}

void result_keep(struct handle *handle, struct result *result, size_t given)
{
    __atomic_add_fetch(&result->refs, 1, __ATOMIC_RELAXED);
    pthread_mutex_lock(&handle->lock);
    struct result *old = handle->last;
    handle->last = result;
    handle->given = given;
    pthread_mutex_unlock(&handle->lock);
    result_release(old);
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
